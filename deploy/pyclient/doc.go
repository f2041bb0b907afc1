// Package pyclient brings the Python client of Micromegas to tests: a virtual environment in the user's cache folder,
// made once per machine and version, with the client as PyPI publishes it. Another one has the messages of Perfetto, to
// read traces as others do.
//
// A machine without Python, or without a way to PyPI, skips such tests with the reason; under CI=true it fails them.
package pyclient
