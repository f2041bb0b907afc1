package demo

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

const targetFrames = "demo/frames"

const (
	framesPerSecond = 60
	hitchMs         = 25.0
	chartFrames     = 320                  // a pixel each
	chartEvery      = 30 * framesPerSecond // frames
	chartHeight     = 120
	chartMs         = 40.0 // of its height
)

var (
	frameSpan    = sdk.NewSpan("frame", sdk.Target(targetFrames))
	inputSpan    = sdk.NewSpan("input", sdk.Target(targetFrames))
	updateSpan   = sdk.NewSpan("update", sdk.Target(targetFrames))
	drawSpan     = sdk.NewSpan("draw", sdk.Target(targetFrames))
	frameTime    = sdk.NewFloat("frame_time", "ms", sdk.Target(targetFrames))
	frameHitch   = sdk.NewLog(sdk.Warn, "frame %d took %.1f ms", sdk.Target(targetFrames))
	playerJoined = sdk.NewLog(sdk.Info, "player %d joined in frame %d", sdk.Target(targetFrames))
	chartFails   = sdk.NewLog(sdk.Error, "chart of frame %d: %s", sdk.Target(targetFrames))
)

// frame is all that is random of a frame.
type frame struct {
	number int
	ms     float64
	joined int // a player; 0 = none
}

// frames draws frames: a smooth load with a hitch now and then.
type frames struct {
	random *rand.Rand
	last   int
	ms     [chartFrames]float64 // of the last frames; the number's rest is the index
}

func newFrames(seed uint64) *frames {
	return &frames{random: rand.New(rand.NewPCG(seed, randomFrames))}
}

func (f *frames) next() frame {
	f.last++
	n := frame{number: f.last, ms: 9 + 2*math.Sin(float64(f.last)/90) + 2*f.random.Float64()}
	if f.random.IntN(200) == 0 {
		n.ms += hitchMs
	}
	if f.random.IntN(90) == 0 {
		n.joined = 1 + f.random.IntN(500)
	}
	f.ms[f.last%chartFrames] = n.ms
	return n
}

// playFrames is the loop of a game. What it writes is little more than the clock's numbers: it can stay on.
func playFrames(ctx context.Context, seed uint64) {
	track := sdk.NewTrack("frames")
	defer track.Close()
	ticker := time.NewTicker(time.Second / framesPerSecond)
	defer ticker.Stop()
	all := newFrames(seed)
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		f := all.next()
		f.play(ctx, track)
		if f.number%chartEvery == framesPerSecond { // the first one after a second
			all.sendChart()
		}
	}
}

func (f *frame) play(ctx context.Context, track *sdk.Track) {
	defer frameSpan.Begin(track).End()
	part := func(s *sdk.Span, share float64) {
		defer s.Begin(track).End()
		pause(ctx, time.Duration(share*f.ms*1e6))
	}
	part(inputSpan, 0.05)
	if f.joined != 0 {
		playerJoined.Log(sdk.Int(f.joined), sdk.Int(f.number))
	}
	part(updateSpan, 0.4)
	part(drawSpan, 0.5)
	frameTime.Record(f.ms)
	if f.ms >= hitchMs {
		frameHitch.Log(sdk.Int(f.number), sdk.Float(f.ms))
	}
}

// sendChart sends a picture of the last frames.
func (f *frames) sendChart() {
	var b bytes.Buffer
	if err := png.Encode(&b, f.chart()); err != nil {
		chartFails.Log(sdk.Int(f.last), sdk.Err(err))
		return
	}
	sdk.SendImage("frame_times", "image/png", b.Bytes())
}

// chart draws a bar a frame, the last one to the right; bars of hitches are red.
func (f *frames) chart() image.Image {
	const ground, bar, hitch, budget = 0, 1, 2, 3
	m := image.NewPaletted(image.Rect(0, 0, chartFrames, chartHeight), color.Palette{
		color.Gray{Y: 0x18}, color.RGBA{R: 0x4c, G: 0xaf, B: 0x50, A: 0xff}, color.RGBA{R: 0xf4, G: 0x43, B: 0x36, A: 0xff}, color.Gray{Y: 0x80},
	})
	for x := range chartFrames {
		ms := f.ms[(f.last+1+x)%chartFrames]
		c := uint8(bar)
		if ms >= hitchMs {
			c = hitch
		}
		for y := range min(chartHeight, int(ms/chartMs*chartHeight)) {
			m.SetColorIndex(x, chartHeight-1-y, c)
		}
		m.SetColorIndex(x, chartHeight-1-chartHeight*1000/framesPerSecond/chartMs, budget)
	}
	return m
}
