package deploy

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer: a refusal is a line, a status a few hundred KiB at most.
const maxAnswer = 4 << 20

// runHealth asks a server whether it is ready, or how it is. It is the probe of an image that holds this program and
// nothing else.
func runHealth(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("health", flag.ContinueOnError)
	url := fs.String("url", "http://"+DefaultConfig().HTTPAddr, "base `URL` of the server")
	timeout := fs.Duration("timeout", 3*time.Second, "longest `duration` to wait for an answer")
	full := fs.Bool("status", false, "print /status instead")
	key := fs.String("key", os.Getenv("MICROMEGAS_API_KEY"), "API `key` for --status (MICROMEGAS_API_KEY)")
	if err := parseFlags(fs, std, "health [flags]", args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if *full {
		return get(ctx, std.out, *url+"/status", *key)
	}
	if err := get(ctx, io.Discard, *url+"/ready", ""); err != nil {
		return err
	}
	fmt.Fprintln(std.out, "ready")
	return nil
}

// get copies what url answers to w; anything but 200 is an error that holds the answer.
func get(ctx context.Context, w io.Writer, url, key string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		reason, err := io.ReadAll(body)
		if err != nil {
			return fmt.Errorf("%s answered %s: %w", url, resp.Status, err)
		}
		return fmt.Errorf("%s answered %s: %s", url, resp.Status, strings.TrimSpace(string(reason)))
	}
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	return nil
}
