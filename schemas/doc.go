// Package schemas is the root of the formats that pass between stages.
package schemas
