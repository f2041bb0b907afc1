package functions

func colorScalars() []Scalar { return nil }
