// Package deploy composes the stages into one program: sub-commands, configuration, roles, the order in which things
// start and drain, and the tests that run the whole house. It is the only package that imports every stage; it reads
// flags and the environment so that no other package does.
package deploy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// command is one sub-command. run returns the exit status's error: nil is 0, errUsage 2, anything else 1.
type command struct {
	name    string
	summary string
	run     func(ctx context.Context, io stdio, args []string) error
}

// stdio is what a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// errUsage says that the command line was wrong and that the reason has been printed.
var errUsage = errors.New("usage")

// commands lists the sub-commands in the order of --help.
func commands() []command {
	return []command{
		{"serve", "receive, store and answer: every role in one process", runServe},
		{"demo", "serve with a small producer, and show a first query's rows", runDemo},
		{"health", "ask a server whether it is ready; --status: how it is", runHealth},
		{"query", "run SQL against a server and print the rows", runQuery},
		{"perfetto", "write the spans of a process as a trace for ui.perfetto.dev", runPerfetto},
		{"loadgen", "post recorded load to a server and print what it acked", runLoadgen},
		{"hostmetrics", "measure this machine and send it to a server", runHostmetrics},
		{"logfile", "follow log files and send their lines to a server", runLogfile},
		{"bench", "measure this machine: a row per mark", runBench},
	}
}

// Main runs the sub-command that args name and returns the exit status: 0 done, 1 failed, 2 wrong usage.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	std := stdio{in, out, errOut}
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		printHelp(out)
		if len(args) == 0 {
			return 2
		}
		return 0
	}
	for _, c := range append(commands(), command{name: benchServe, run: runBenchServe}) {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, std, args[1:])
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return 0
		case errors.Is(err, errUsage):
			return 2
		default:
			fmt.Fprintf(errOut, "micromegas %s: %v\n", c.name, err)
			return 1
		}
	}
	fmt.Fprintf(errOut, "micromegas: no command %q; the commands are:\n", args[0])
	printCommands(errOut)
	return 2
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "micromegas collects, stores and queries the logs, metrics and traces of programs that emit a lot.\n\n"+
		"usage: micromegas COMMAND [flags]     (from the source: go run . COMMAND [flags])\n\ncommands:\n")
	printCommands(w)
	fmt.Fprint(w, "\nmicromegas COMMAND --help shows a command's flags. To begin: micromegas demo\n")
}

func printCommands(w io.Writer) {
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.summary)
	}
}

// parseFlags parses args into fs and turns a mistake into errUsage; -h prints the defaults and returns flag.ErrHelp.
func parseFlags(fs *flag.FlagSet, io stdio, usage string, args []string) error {
	fs.SetOutput(io.err)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: micromegas %s\n\nflags:\n", usage)
		fs.PrintDefaults()
	}
	err := fs.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return errUsage // the flag package has printed why
}
