package dialect

type positions []struct{ out, in int }
