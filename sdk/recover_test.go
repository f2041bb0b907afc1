package sdk_test

import (
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
)

func TestRecover(t *testing.T) {
	c := begin(t, nil)
	func() {
		defer func() {
			if v := recover(); v != "lost the plot" {
				t.Errorf("panic with %v", v)
			}
		}()
		defer sdk.Recover()
		panic("lost the plot")
	}()
	func() { defer sdk.Recover() }()
	got := c.read(t)
	if len(got.logs) != 1 || got.logs[0].Level != 1 || !strings.HasPrefix(got.logs[0].Msg, "panic: lost the plot\n") || !strings.Contains(got.logs[0].Msg, "TestRecover") {
		t.Errorf("%+v", got.logs)
	}
	end(t, c)
}
