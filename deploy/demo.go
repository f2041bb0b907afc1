package deploy

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/micromegas-go/micromegas/producers/demo"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/client/output"
)

// firstQuery is what demo shows: the newest rows, of which the first come a second after the start.
const firstQuery = `SELECT time, level, target, msg FROM log_entries ORDER BY time DESC LIMIT 5`

// firstRowsTimeout bounds the wait for the demo producer's first rows.
const firstRowsTimeout = 30 * time.Second

func runDemo(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	cfg := DefaultConfig()
	complete := bindConfig(fs, &cfg, os.Getenv)
	seed := fs.Uint64("seed", demo.DefaultConfig().Seed, "of the demo producer: the same one plays the same")
	once := fs.Bool("once", false, "stop after the first query's rows")
	if err := parseFlags(fs, std, "demo [flags]", args); err != nil {
		return err
	}
	if err := complete(); err != nil {
		return err
	}
	key := os.Getenv("MICROMEGAS_INGESTION_API_KEY")
	if cfg.APIKeys != "" && key == "" {
		return configError{"the server has keys and the demo producer has none", "set MICROMEGAS_INGESTION_API_KEY to one of MICROMEGAS_API_KEYS, or unset both"}
	}
	s, err := Start(ctx, cfg, newLogger(std.err, cfg))
	if err != nil {
		return err
	}
	printAddresses(std.out, s)

	pc := demo.DefaultConfig()
	pc.URL, pc.Key, pc.Seed = "http://"+s.HTTPAddr(), key, *seed
	producer, err := demo.New(pc, s.plain)
	if err != nil {
		s.Stop(ctx)
		return err
	}
	producing, stopProducing := context.WithCancel(ctx)
	produced := make(chan error, 1)
	go func() { produced <- producer.Run(producing) }()

	err = showFirstRows(ctx, std, "grpc://"+s.FlightAddr(), key)
	if err == nil && !*once {
		fmt.Fprintf(std.out, "\nthe demo producer goes on; try: go run . query 'SELECT name, count(*), avg(value) FROM measures GROUP BY name' --begin 1m --url grpc://%s\ninterrupt to stop\n", s.FlightAddr())
		select {
		case <-ctx.Done():
		case err = <-s.Failed():
		}
	}
	stopProducing()
	if e := <-produced; e != nil {
		s.log.Warn("demo producer ended with an error", "error", e)
	}
	s.Stop(context.WithoutCancel(ctx))
	if ctx.Err() != nil {
		return nil // an interrupt ends the demo as it should
	}
	return err
}

// showFirstRows asks until there are rows, and prints them.
func showFirstRows(ctx context.Context, std stdio, url, key string) error {
	ctx, cancel := context.WithTimeout(ctx, firstRowsTimeout)
	defer cancel()
	c, err := client.Dial(url, client.Options{BearerToken: key})
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintln(std.out, "\nwaiting for the demo producer's first rows …")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := hasRows(ctx, c)
		if err != nil {
			return fmt.Errorf("first query: %w", err)
		}
		if found {
			fmt.Fprintf(std.out, "\n%s\n\n", firstQuery)
			return printQuery(ctx, std, url, key, firstQuery, output.Table, client.QueryOptions{})
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no rows within %v: see the log above", firstRowsTimeout)
		case <-tick.C:
		}
	}
}

func hasRows(ctx context.Context, c *client.Client) (bool, error) {
	rows, err := c.Query(ctx, "SELECT msg FROM log_entries LIMIT 1", client.QueryOptions{})
	if err != nil {
		return false, err
	}
	defer rows.Close()
	batch, err := rows.Next()
	if err != nil {
		return false, nil // io.EOF: none yet; anything else comes again
	}
	defer batch.Release()
	return batch.NumRows() > 0, nil
}
