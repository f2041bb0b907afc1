package functions

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

func colorScalars() []Scalar {
	return []Scalar{{"color_scale", []Type{Text, Float64, Float64}, Uint32, stateless(colorScale)}}
}

// colorScale gives the colour of a map at t, with an opacity, as 0xRRGGBBAA.
func colorScale(in *Args, out *Out) error {
	rgb, err := scaleColor(in.Text[0], in.Float[1])
	if err != nil {
		return err
	}
	out.Int = int64(rgb)<<8 | int64(channel(in.Float[2]*255))
	return nil
}

func scaleColor(name string, t float64) (uint32, error) {
	if !(t > 0) { // also for NaN
		t = 0
	}
	t = min(t, 1)
	switch strings.ToLower(name) {
	case "viridis":
		return tableColor(viridisTable, t), nil
	case "magma":
		return tableColor(magmaTable, t), nil
	case "plasma":
		return tableColor(plasmaTable, t), nil
	case "inferno":
		return tableColor(infernoTable, t), nil
	case "cividis":
		return polynomialColor(cividis, t), nil
	case "turbo":
		return polynomialColor(turbo, t), nil
	default:
		return 0, fmt.Errorf("color_scale(): unknown colormap '%s'. Recognized: viridis, magma, plasma, inferno, cividis, turbo", name)
	}
}

// tableColor picks one of 256 colours.
func tableColor(table string, t float64) uint32 {
	const width = 6
	i := min(int(t*256), 255)
	rgb, _ := strconv.ParseUint(table[i*width:(i+1)*width], 16, 32)
	return uint32(rgb)
}

// The published approximations of two maps: coefficients of red, green and blue, of t⁰ to t⁵.
var (
	cividis = [3][]float64{
		{-4.54, -35.34, 2381.73, -6402.7, 7024.72, -2710.57},
		{32.49, 170.73, 52.82, -131.46, 176.58, -67.37},
		{81.24, 442.36, -2482.43, 6167.24, -6614.94, 2475.67},
	}
	turbo = [3][]float64{
		{34.61, 1172.33, -10793.56, 33300.12, -38394.49, 14825.05},
		{23.31, 557.33, 1225.33, -3574.96, 1073.77, 707.56},
		{27.2, 3211.1, -15327.97, 27814, -22569.18, 6838.66},
	}
)

func polynomialColor(coefficients [3][]float64, t float64) uint32 {
	rgb := uint32(0)
	for _, c := range coefficients {
		v := 0.0
		for _, factor := range slices.Backward(c) {
			v = v*t + factor
		}
		rgb = rgb<<8 | uint32(max(0, min(v, 255))) // cut, not rounded
	}
	return rgb
}

// channel rounds to a byte; NaN is 0.
func channel(v float64) uint8 {
	if !(v > 0) {
		return 0
	}
	return uint8(min(math.Floor(v+0.5), 255))
}
