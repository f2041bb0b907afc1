package deploy

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/micromegas-go/micromegas/producers/hostmetrics"
)

const hostmetricsUsage = `hostmetrics [flags]

Measures this machine (processor, load, memory, file systems, disks, network) and sends the measures to a server, until it is interrupted.
With a server running (micromegas serve):

  micromegas hostmetrics --period 1s
  micromegas query "SELECT time, value FROM measures WHERE name = 'cpu_busy' ORDER BY time" --begin 5m
  micromegas query "SELECT name, properties, avg(value) FROM measures WHERE name LIKE 'disk%' GROUP BY name, properties" --begin 5m

Rates (disk_read, network_sent, …) come with the second sample. In a container that measures its host, mount the host's /proc, /sys and / and
name them with --proc, --sys and --root.`

func runHostmetrics(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("hostmetrics", flag.ContinueOnError)
	p := newProducing(fs, std)
	cfg := hostmetrics.DefaultConfig()
	fs.DurationVar(&cfg.Period, "period", cfg.Period, "between samples")
	fs.StringVar(&cfg.Proc, "proc", cfg.Proc, "`folder` of procfs")
	fs.StringVar(&cfg.Sys, "sys", cfg.Sys, "`folder` of sysfs")
	fs.StringVar(&cfg.Root, "root", cfg.Root, "`folder` below which file systems are mounted")
	fs.Func("groups", fmt.Sprintf("what is measured, of %v (default all)", hostmetrics.Groups()), func(s string) error {
		cfg.Groups = nil
		for name := range strings.SplitSeq(s, ",") {
			cfg.Groups = append(cfg.Groups, hostmetrics.Group(strings.TrimSpace(name)))
		}
		return nil
	})
	if err := parseFlags(fs, std, hostmetricsUsage, args); err != nil {
		return err
	}
	meter, err := hostmetrics.New(cfg, p.log)
	if err != nil {
		return err
	}
	return p.run(ctx, "hostmetrics", meter.Run, func() string {
		s := meter.Stats()
		return fmt.Sprintf("took %d samples, %d groups failed, passed over %d lines or devices", s.Samples, s.Failures, s.PassedOver)
	})
}
