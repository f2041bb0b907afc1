package sdk

import (
	"strings"

	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Bounds of images that wait for the recorder.
const (
	MaxImageBytes    = 32 << 20 // of one
	maxImagesWaiting = 64 << 20 // of all
)

type image struct {
	tick         int64
	name, format string
	data         []byte
}

// SendImage sends a picture, such as a screenshot: its format is a media type, "image/png". The library keeps data until it is sent; the
// caller must not change it. It reports whether there was room: what is above MaxImageBytes, or too much at once, is dropped and counted.
func SendImage(name, format string, data []byte) bool {
	r := running.Load()
	if r == nil {
		return false
	}
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	if len(data) > MaxImageBytes || r.imagesBytes+len(data) > maxImagesWaiting {
		drops.add(dropImage, 1)
		return false
	}
	r.imagesBytes += len(data)
	r.imagesQueue = append(r.imagesQueue, image{ticks(), strings.Clone(name), strings.Clone(format), data})
	return true
}

// drainImages makes a block of each image.
func (r *recorder) drainImages(now int64) {
	r.imagesMu.Lock()
	queue := r.imagesQueue
	r.imagesQueue, r.imagesBytes = nil, 0
	r.imagesMu.Unlock()
	for i := range queue {
		p := &queue[i]
		name, _, _ := wire.CleanName(validText(p.name))
		format, _, _ := wire.CleanName(validText(p.format))
		ns := r.clock.ns(p.tick)
		r.images.objs = wire.AppendImage(r.images.objs, ns, name, format, p.data)
		r.images.added(ns)
		r.images.cut(now)
	}
}

// validText returns s with what is not UTF-8 replaced.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
