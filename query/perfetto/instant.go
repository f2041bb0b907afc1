package perfetto

import (
	"strings"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/query/perfetto/tracepb"
)

const (
	// maxEventName is how much of a message becomes its event's name, in bytes; all of it is in the log or an argument.
	maxEventName = 128

	// The viewer shows the pictures of events of this name and category.
	screenshotName     = "Screenshot"
	screenshotCategory = "android_screenshot"
)

// Arg is an argument of an event, which the viewer shows beside it. Text and Int make one.
type Arg struct {
	name, text string
	number     int64
	isNumber   bool
}

// Text is an argument that is a text.
func Text(name, value string) Arg { return Arg{name: name, text: value} }

// Int is an argument that is a number.
func Int(name string, value int64) Arg { return Arg{name: name, number: value, isNumber: true} }

// Entry is a log entry.
type Entry struct {
	Time    int64
	Level   int32 // 1 fatal … 6 trace
	Target  string
	Message string
}

// Picture is an image that the process sent.
type Picture struct {
	Time         int64
	Name, Format string
	Data         []byte
}

// priorities are the viewer's names for levels.
var priorities = [...]tracepb.LogMessage_Priority{
	tracepb.LogMessage_PRIO_UNSPECIFIED,
	tracepb.LogMessage_PRIO_FATAL,
	tracepb.LogMessage_PRIO_ERROR,
	tracepb.LogMessage_PRIO_WARN,
	tracepb.LogMessage_PRIO_INFO,
	tracepb.LogMessage_PRIO_DEBUG,
	tracepb.LogMessage_PRIO_VERBOSE,
}

// levels are the names of levels.
var levels = [...]string{"", "fatal", "error", "warn", "info", "debug", "trace"}

// Log writes a log entry as an instant of the track. That of a thread is in the viewer's log too.
func (t *Track) Log(e *Entry) error {
	w := t.process.w
	if w.err != nil {
		return w.err
	}
	level := e.Level
	if level < 0 || int(level) >= len(levels) {
		level = 0
	}
	args := make([]Arg, 0, 2)
	if level > 0 {
		args = append(args, Text("level", levels[level]))
	}
	name := cutText(e.Message, maxEventName)
	if !t.thread && len(name) < len(e.Message) {
		args = append(args, Text("message", e.Message))
	}
	w.instant(t, e.Time, e.Target, name)
	if t.thread { // the viewer's log has no entries without a thread
		w.event.track.LogMessage = &tracepb.LogMessage{BodyIid: new(w.names.body(e.Message)), Prio: &priorities[level]}
	}
	w.writeEvent(args)
	w.event.track.LogMessage = nil
	w.event.track.Name = nil
	return w.err
}

// Image writes a picture as an instant of the track; the viewer shows those in the format JPEG.
func (t *Track) Image(p *Picture) error {
	w := t.process.w
	if w.err != nil {
		return w.err
	}
	args := []Arg{Text("name", p.Name), Text("format", p.Format), Int("size", int64(len(p.Data)))}
	if isJPEG(p.Format) {
		w.instant(t, p.Time, screenshotCategory, screenshotName)
		w.event.track.Screenshot = &tracepb.Screenshot{JpgImage: p.Data}
	} else {
		w.instant(t, p.Time, "image", p.Name)
	}
	w.writeEvent(args)
	w.event.track.Screenshot = nil
	w.event.track.Name = nil
	return w.err
}

func isJPEG(format string) bool {
	switch strings.ToLower(format) {
	case "jpg", "jpeg", "image/jpeg", "image/jpg":
		return true
	}
	return false
}

// instant fills in an event without a duration. Its name is not interned: such names seldom come again.
func (w *Writer) instant(t *Track, at int64, target, name string) {
	w.flushThreads()
	w.bound()
	category := w.names.category(target)
	w.event.fill(tracepb.TrackEvent_TYPE_INSTANT, t.uuid, at)
	w.event.categories[0] = category
	w.event.track.CategoryIids = w.event.categories[:]
	w.event.track.Name = text(name)
}

// annotate gives the event arguments.
func (w *Writer) annotate(args []Arg) {
	for _, a := range args {
		d := &tracepb.DebugAnnotation{NameIid: new(w.names.argument(a.name))}
		if a.isNumber {
			d.IntValue = new(a.number)
		} else {
			d.StringValue = text(a.text)
		}
		w.event.track.DebugAnnotations = append(w.event.track.DebugAnnotations, d)
	}
}

// cutText returns the first bytes of s, most of them, between two characters.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
