package parts_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

func startNATS(t *testing.T, n int, options ...parts.NATSOptions) *parts.NATS {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := parts.StartNATS(ctx, t.TempDir(), n, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range n {
				text, _ := os.ReadFile(c.Log(i))
				t.Logf("%s:\n%s", c.Log(i), text[max(0, len(text)-3000):])
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// eventually waits until f returns nil.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestNATSCluster breaks a cluster in every way: three copies of a stream survive what befalls one server.
func TestNATSCluster(t *testing.T) {
	c := startNATS(t, 3)
	nc, err := nats.Connect(c.URLs(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.PingInterval(500*time.Millisecond)) // leaves a paused server soon
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	published := 0
	publish := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "s", []byte("x"))
		if err == nil {
			published++
		}
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(publish())
	leader, err := c.Leader("s")
	must(err)
	must(c.Kill(leader))
	eventually(t, 30*time.Second, publish)
	must(c.Restart(t.Context(), leader))

	leader, err = c.Leader("s")
	must(err)
	c.Partition(leader)
	eventually(t, 30*time.Second, func() error {
		other, err := c.Leader("s")
		if err == nil && other == leader {
			err = fmt.Errorf("the leader is %s still", c.URL(leader))
		}
		return err
	})
	c.Heal(leader)
	eventually(t, 30*time.Second, publish)

	other := (leader + 1) % c.Size()
	must(c.Pause(other))
	eventually(t, 30*time.Second, publish)
	must(c.Resume(other))
	if len(c.Pids()) != 3 {
		t.Errorf("processes %v", c.Pids())
	}
	if _, err := c.CPU(); err != nil {
		t.Error(err)
	}
	for i := range c.Size() {
		must(c.Kill(i))
	}
	for i := range c.Size() {
		must(c.Launch(i))
	}
	eventually(t, 30*time.Second, publish)
	stream, err := js.Stream(t.Context(), "s")
	must(err)
	if got := stream.CachedInfo().State.Msgs; got < uint64(published) {
		t.Errorf("%d messages, %d were acknowledged", got, published)
	}
}

func TestToxiproxy(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("hello"))
			_ = conn.Close()
		}
	}()
	ctx := t.Context()
	server, err := parts.StartToxiproxy(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	p, err := server.Proxy("echo", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	greet := func(patience time.Duration) error {
		conn, err := net.DialTimeout("tcp", p.Addr(), patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		var b [5]byte
		_, err = conn.Read(b[:])
		return err
	}
	for _, step := range []struct {
		name  string
		do    func() error
		works bool
	}{
		{"whole", func() error { return nil }, true},
		{"cut", p.Cut, false},
		{"healed", p.Heal, true},
		{"stalled", p.Stall, false},
		{"slow", func() error { return p.Latency(50*time.Millisecond, time.Millisecond) }, true},
		{"healed again", p.Heal, true},
		{"deleted", p.Delete, false},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		patience := 5 * time.Second
		if !step.works {
			patience = 200 * time.Millisecond
		}
		if err := greet(patience); (err == nil) != step.works {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}
