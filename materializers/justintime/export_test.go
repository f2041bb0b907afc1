package justintime

// SetHook has f called between any two steps of builds; an error is a crash there. It must be set before the first request.
func (s *Service) SetHook(f func(at string) error) { s.hook = f }
