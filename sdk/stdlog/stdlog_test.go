package stdlog_test

import (
	"log"
	"strings"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/sdktest"
	"github.com/micromegas-go/micromegas/sdk/stdlog"
)

const here = "github.com/micromegas-go/micromegas/sdk/stdlog_test"

func TestRedirectRecordsAndRestores(t *testing.T) {
	var printed strings.Builder
	out, flags := log.Writer(), log.Flags()
	defer func() { log.SetOutput(out); log.SetFlags(flags) }()
	log.SetOutput(&printed)
	log.SetFlags(log.LstdFlags | log.Lshortfile)

	end := sdktest.Begin(t, sdk.Config{})
	restore := stdlog.Redirect(sdk.Warn)
	log.Print("one line")
	log.Printf("two\nlines%s", "\r\n")
	log.Println()
	stdlog.NewLogger("net/http", sdk.Error).Println("of another", 5)
	restore()
	restore()
	log.Print("printed")
	logs := end().Logs

	want := []struct {
		level  sdk.Level
		target string
		msg    string
	}{{sdk.Warn, here, "one line"}, {sdk.Warn, here, "two\nlines"}, {sdk.Warn, here, ""}, {sdk.Error, "net/http", "of another 5"}}
	if len(logs) != len(want) {
		t.Fatalf("%+v", logs)
	}
	for i, w := range want {
		if e := logs[i]; e.Level != int32(w.level) || e.Target != w.target || e.Msg != w.msg {
			t.Errorf("%+v, not %+v", e, w)
		}
	}
	if got := printed.String(); !strings.HasSuffix(got, "printed\n") || strings.Count(got, "\n") != 1 || !strings.Contains(got, "stdlog_test.go:") {
		t.Errorf("%q", got)
	}
}

func TestRestoreLeavesAnotherOutput(t *testing.T) {
	out, flags := log.Writer(), log.Flags()
	defer func() { log.SetOutput(out); log.SetFlags(flags) }()
	restore := stdlog.Redirect(sdk.Info)
	var other strings.Builder
	log.SetOutput(&other)
	restore()
	if log.Writer() != &other {
		t.Error("the output was changed")
	}
}

func TestManyGoroutines(t *testing.T) {
	const goroutines, each = 8, 200
	end := sdktest.Begin(t, sdk.Config{})
	l := stdlog.NewLogger("", sdk.Info)
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range each {
				l.Print("a\nb")
			}
		})
	}
	all.Wait()
	logs := end().Logs
	if len(logs) != goroutines*each {
		t.Errorf("%d entries", len(logs))
	}
	for _, e := range logs {
		if e.Msg != "a\nb" || e.Target != here {
			t.Fatalf("%+v", e)
		}
	}
}

func BenchmarkPrint(b *testing.B) {
	sdktest.Begin(b, sdk.Config{Memory: 1 << 30})
	l := stdlog.NewLogger("", sdk.Info)
	b.ReportAllocs()
	for b.Loop() {
		l.Print("one line")
	}
}
