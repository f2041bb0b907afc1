package httpsink

import "os"

// To returns a running sink that posts to the gateway at url; "" is the one that MICROMEGAS_TELEMETRY_URL names. Keys and bounds are read from
// the environment, see FromEnv.
func To(url string) (*Sink, error) {
	if url == "" {
		url = os.Getenv("MICROMEGAS_TELEMETRY_URL")
	}
	c := DefaultConfig()
	c.URL = url
	c, err := c.fromEnv()
	if err != nil {
		return nil, err
	}
	return New(c)
}
