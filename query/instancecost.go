package query

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// instanceCostRelation is the result of instance_cost(set, id): what whoever would build the instance says of it. Nothing is built.
func (r *run) instanceCostRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	t, _ := tables.Function(f.Name)
	w, err := r.costWish(f)
	if err != nil {
		return "", err
	}
	if r.unread() {
		return emptyRelation(t), nil
	}
	if r.s.parts.Bus == nil {
		return "", r.refused(ctx, w, bus.ErrNoOwner)
	}
	reply, err := r.s.parts.Bus.Materialize(ctx, bus.MaterializeRequest{View: w.view, Instance: w.id, Begin: w.begin, End: w.end, Dry: true}, nil)
	if err != nil {
		return "", r.refused(ctx, w, err)
	}
	row := []string{quoteText(w.view), quoteText(w.id.String())}
	for _, n := range []int64{reply.Blocks, reply.BuiltBlocks, reply.Objects, reply.Bytes, reply.Partitions, reply.FreshPartitions} {
		row = append(row, strconv.FormatInt(n, 10))
	}
	return constantRelation(typedColumns(t), [][]string{row}), nil
}

// costWish checks which instance is meant.
func (r *run) costWish(f dialect.FunctionRef) (wish, error) {
	if len(f.Args) < 2 {
		return wish{}, fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	set, _ := f.Args[0].(string)
	text, _ := f.Args[1].(string)
	t, ok := r.s.names.Table(set)
	if !ok || !justInTime(t) {
		return wish{}, &Error{
			Code: codeInvalid, Phase: phasePlan, Message: "Error during planning: " + f.Name + ": " + quoteText(set) + " is no view set that is built when somebody asks",
			Help: "view sets that are: " + strings.Join(justInTimeNames(), ", "),
		}
	}
	id, err := telemetry.ParseID(text)
	if err != nil {
		return wish{}, &Error{Code: codeInvalid, Phase: phasePlan, Message: "Error during planning: " + f.Name + ": " + quoteText(text) + " is not a valid UUID", Err: err}
	}
	return wishFor(set, id, r.req.Range), nil
}

// justInTimeNames returns the names of the views that are built when somebody asks.
func justInTimeNames() []string {
	var names []string
	for _, t := range tables.All() {
		if justInTime(t) {
			names = append(names, t.Name)
		}
	}
	return names
}
