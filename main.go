// Command micromegas collects, stores and queries the logs, metrics and traces of programs that emit a lot.
// Run it with --help for its sub-commands.
package main

import (
	"os"

	"github.com/micromegas-go/micromegas/deploy"
)

func main() {
	os.Exit(deploy.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
