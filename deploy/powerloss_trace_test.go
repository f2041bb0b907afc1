package deploy_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// tracedCalls are the system calls that change files or sync them, that pass file descriptors on, and that carry an
// answer out of the process. Those that the model of the disk does not know fail the test when they succeed.
const tracedCalls = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate," +
	"fsync,fdatasync,sync_file_range,sync,syncfs,msync,rename,renameat,renameat2,link,linkat,symlink,symlinkat," +
	"unlink,unlinkat,rmdir,mkdir,mkdirat,close,close_range,dup,dup2,dup3,fcntl,lseek,mmap," +
	"accept,accept4,sendfile,copy_file_range,splice,io_uring_setup"

// straceArgs records the calls of a command and of all its threads. Strings are hexadecimal and whole.
func straceArgs(output string) []string {
	return []string{"-f", "--seccomp-bpf", "-xx", "-s", "33554432", "-e", "signal=none", "-e", "trace=" + tracedCalls, "-o", output}
}

// call is one system call. A call that another thread's call interrupted in the record begins at one line and ends at a
// later one; whatever began between may have come before it or after it.
type call struct {
	name   string
	args   []string
	result string // empty: it never returned

	file   *openFile // write, sync: what the descriptor meant when the call began
	change *change   // write: what it may do
	covers []*change // sync: what was finished when the call began
}

// number returns the result, or false when the call failed.
func (c *call) number() (int64, bool) {
	text, _, _ := strings.Cut(c.result, " ")
	n, err := strconv.ParseInt(text, 0, 64)
	return n, err == nil && n >= 0
}

func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

func (c *call) integer(i int) (int64, error) {
	n, err := strconv.ParseInt(c.arg(i), 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: argument %d: %w", c.name, i, err)
	}
	return n, nil
}

func (c *call) fd(i int) int {
	n, err := strconv.Atoi(c.arg(i))
	if err != nil {
		return -1 // AT_FDCWD
	}
	return n
}

func (c *call) has(i int, flag string) bool { return strings.Contains(c.arg(i), flag) }

// readTrace calls begin and end for every call, in the order of the record.
func readTrace(path string, begin, end func(*call) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	open := map[string]*unfinished{} // by thread
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line without an end is the last moment of a killed process
		}
		if err != nil {
			return err
		}
		if err := traceLine(string(bytes.TrimSuffix(line, []byte("\n"))), open, begin, end); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
}

type unfinished struct {
	call *call
	text string // name and arguments so far
}

func traceLine(line string, open map[string]*unfinished, begin, end func(*call) error) error {
	thread, text, _ := strings.Cut(line, " ")
	text = strings.TrimLeft(text, " ")
	if strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") {
		return nil
	}
	if strings.HasPrefix(text, "<... ") {
		was := open[thread]
		if was == nil {
			return errors.New("end of a call that did not begin")
		}
		delete(open, thread)
		_, rest, _ := strings.Cut(text, " resumed>")
		if err := was.call.parse(was.text + rest); err != nil {
			return err
		}
		return end(was.call)
	}
	c := &call{}
	if before, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
		open[thread] = &unfinished{call: c, text: before}
		if err := c.parse(before); err != nil {
			return err
		}
		return begin(c)
	}
	if err := c.parse(text); err != nil {
		return err
	}
	if err := begin(c); err != nil {
		return err
	}
	return end(c)
}

// parse reads `name(arguments) = result`, or the beginning of it.
func (c *call) parse(text string) error {
	name, rest, ok := strings.Cut(text, "(")
	if !ok {
		return fmt.Errorf("no call: %.80s", text)
	}
	c.name = name
	if i := strings.LastIndex(rest, " = "); i >= 0 {
		c.result = strings.TrimSpace(rest[i+3:])
		rest = strings.TrimSuffix(strings.TrimRight(rest[:i], " "), ")")
	}
	if strings.Contains(rest, `"...`) {
		return fmt.Errorf("%s: a string is cut", name)
	}
	c.args = splitArguments(rest)
	return nil
}

// splitArguments cuts at the commas that are outside of strings, arrays and structures. Strings are hexadecimal: they
// contain no quotes and no brackets.
func splitArguments(text string) []string {
	var args []string
	depth, from := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '{', '[', '(':
			depth++
		case '}', ']', ')':
			depth--
		case ',':
			if depth == 0 {
				args = append(args, strings.TrimSpace(text[from:i]))
				from = i + 1
			}
		}
	}
	return append(args, strings.TrimSpace(text[from:]))
}

var hexString = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)

// bytesOf decodes the string, or the strings of an iovec one after another.
func bytesOf(arg string) ([]byte, error) {
	if len(arg) < 2 || arg[0] != '"' {
		var all []byte
		for _, m := range hexString.FindAllString(arg, -1) {
			part, err := bytesOf(m)
			if err != nil {
				return nil, err
			}
			all = append(all, part...)
		}
		return all, nil
	}
	data, err := hex.DecodeString(strings.ReplaceAll(arg[1:len(arg)-1], `\x`, ""))
	if err != nil {
		return nil, fmt.Errorf("string %.40s: %w", arg, err)
	}
	return data, nil
}

var acceptedPort = regexp.MustCompile(`sin_port=htons\((\d+)\)`)

// peerPort is the port of the client that accept took; 0 when it is no TCP client.
func (c *call) peerPort() int {
	m := acceptedPort.FindStringSubmatch(c.arg(1))
	if m == nil {
		return 0
	}
	port, _ := strconv.Atoi(m[1]) // digits
	return port
}
