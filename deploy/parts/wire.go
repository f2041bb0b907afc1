package parts

import (
	"errors"
	"net"
	"sync"
)

// wire is a TCP forwarder that can be cut: then it holds what is on its way and accepts connections without an answer, as
// a network does that loses every packet; healed it goes on where it was, as TCP's repetitions do. Its methods are safe
// for concurrent use.
type wire struct {
	listener net.Listener
	target   string
	done     sync.WaitGroup

	mu    sync.Mutex
	open  chan struct{} // closed while the wire is whole
	conns map[net.Conn]struct{}
	gone  bool
}

// newWire forwards what comes to a free loopback port to target.
func newWire(target string) (*wire, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{listener: listener, target: target, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(w.open)
	w.done.Go(w.accept)
	return w, nil
}

func (w *wire) addr() string { return w.listener.Addr().String() }

func (w *wire) accept() {
	for {
		in, err := w.listener.Accept()
		if err != nil {
			return
		}
		if !w.keep(in) {
			return
		}
		w.done.Go(func() { w.forward(in) })
	}
}

// keep notes a connection that stop must close; it closes it at once when the wire is stopped.
func (w *wire) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		c.Close()
		return false
	}
	w.conns[c] = struct{}{}
	return true
}

func (w *wire) drop(c net.Conn) {
	w.mu.Lock()
	delete(w.conns, c)
	w.mu.Unlock()
	c.Close()
}

// forward serves one connection until either side leaves.
func (w *wire) forward(in net.Conn) {
	defer w.drop(in)
	w.whole()
	out, err := net.Dial("tcp", w.target)
	if err != nil || !w.keep(out) {
		return
	}
	defer w.drop(out)
	var back sync.WaitGroup
	back.Go(func() {
		w.copy(in, out)
		in.Close()
	})
	w.copy(out, in)
	out.Close()
	back.Wait()
}

// copy moves bytes while the wire is whole.
func (w *wire) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.whole()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// whole waits until the wire is whole, or stopped.
func (w *wire) whole() {
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	<-open
}

// cut holds everything up until heal.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
		if !w.gone {
			w.open = make(chan struct{})
		}
	default:
	}
}

func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

// stop closes the wire and everything on it.
func (w *wire) stop() error {
	w.mu.Lock()
	w.gone = true
	for c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	w.heal()
	err := w.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	w.done.Wait()
	return err
}
