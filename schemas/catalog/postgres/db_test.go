package postgres

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/catalogtest"
)

func TestConformance(t *testing.T) {
	catalogtest.Run(t, func(t *testing.T) catalog.Catalog { return open(t, database(t)) })
}
