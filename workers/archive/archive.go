// Package archive makes what is on the bus part of the lake: packs of frames, and the catalog's rows about them.
package archive
