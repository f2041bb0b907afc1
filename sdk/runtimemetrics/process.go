package runtimemetrics

import (
	"bytes"
	"os"
	"strconv"

	"github.com/micromegas-go/micromegas/sdk"
)

var (
	processRSS = sdk.NewInt("process_rss", "bytes")
	processFDs = sdk.NewInt("process_open_fds", "count")
)

// Where Linux says what a process has. Elsewhere there are no such files, and nothing is recorded.
const (
	statmFile = "/proc/self/statm"
	fdFolder  = "/proc/self/fd"
)

// process reads what the system knows of this process.
type process struct {
	statm    *os.File // nil = there is none; kept open, each read makes its text anew
	buf      [256]byte
	pageSize int64
}

func openProcess() *process {
	p := &process{pageSize: int64(os.Getpagesize())}
	if f, err := os.Open(statmFile); err == nil {
		p.statm = f
	}
	return p
}

func (p *process) close() {
	if p.statm != nil {
		p.statm.Close()
	}
}

func (p *process) read() {
	if p.statm == nil {
		return
	}
	n, _ := p.statm.ReadAt(p.buf[:], 0) // ends with io.EOF
	if pages, ok := residentPages(p.buf[:n]); ok {
		processRSS.Record(pages * p.pageSize)
	}
	if n, ok := openFiles(); ok {
		processFDs.Record(n)
	}
}

// residentPages returns the second number of statm.
func residentPages(statm []byte) (int64, bool) {
	_, rest, _ := bytes.Cut(statm, []byte(" "))
	field, _, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(field), 10, 64)
	return n, err == nil
}

// openFiles returns how many files are open. Linux 6.2 and later say it as the folder's size; before, it is counted.
func openFiles() (int64, bool) {
	s, err := os.Stat(fdFolder)
	if err != nil {
		return 0, false
	}
	if s.Size() > 0 {
		return s.Size(), true
	}
	return countFiles()
}

// countFiles counts the names in the folder, without the file that reads it.
func countFiles() (int64, bool) {
	f, err := os.Open(fdFolder)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	const atOnce = 1024
	n := int64(-1)
	for {
		names, err := f.Readdirnames(atOnce)
		n += int64(len(names))
		if err != nil || len(names) == 0 {
			return max(0, n), n >= 0
		}
	}
}
