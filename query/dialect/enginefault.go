package dialect

import (
	"regexp"
	"strings"
	"sync"
)

// EngineFault is what the engine says about a statement that passed the guard.
type EngineFault struct {
	Class      string   // parse, bind, execution, resource, interrupted or internal
	Message    string   // as the engine words it
	Subtype    string   // COLUMN_NOT_FOUND, …, where the engine tells
	Kind       string   // what was not found: "Scalar Function", "Table", …
	Name       string   // its name
	Candidates []string // names alike
}

// MapEngineError turns what the engine says about st into an error that speaks of the client's text and names.
// st may be nil.
func MapEngineError(f EngineFault, st *Statement) *Error {
	message := engineText(f.Message)
	switch f.Class {
	case "parse":
		return &Error{Code: Invalid, Message: prefixSQL + message}
	case "bind":
		return mapBindError(f, message, st)
	case "execution":
		return &Error{Code: Invalid, Message: prefixExecution + message}
	case "resource":
		return &Error{
			Code: Exhausted, Message: prefixResources + message,
			Hint: "narrow the time range, select fewer columns, or aggregate before sorting and joining",
		}
	case "interrupted":
		return &Error{Code: Failed, Message: prefixExecution + message}
	default:
		return &Error{Code: Failed, Message: prefixInternal + message}
	}
}

// engineClasses matches the class that begins the engine's messages.
var engineClasses = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:[A-Z][A-Za-z]*(?: [A-Za-z]+){0,3} (?:Error|exception): )+`)
})

// engineText takes the class and the excerpt of the rewritten text from the engine's message.
func engineText(message string) string {
	message = engineClasses().ReplaceAllString(message, "")
	if i := strings.Index(message, "\nLINE "); i >= 0 {
		message = message[:i]
	}
	message = strings.TrimSpace(message)
	if len(message) > 1 && message[0] >= 'A' && message[0] <= 'Z' && message[1] >= 'a' && message[1] <= 'z' {
		message = lowerASCII(message[:1]) + message[1:]
	}
	return message
}

// missingColumn matches the messages about columns that do not exist.
var missingColumn = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:no field named "?([^".\\s]+)|column (?:named )?"([^"]+)" not found|column named "([^"]+)"|Referenced table "([^"]+)" not found)`)
})

func mapBindError(f EngineFault, message string, st *Statement) *Error {
	if name := missingName(f, message); name != "" {
		e := &Error{Code: Invalid, Message: prefixSchema + "No field named " + name}
		if near := candidates(f, message); len(near) > 0 {
			e.Hint = "did you mean " + strings.Join(near, ", ") + "?"
		}
		return st.locateName(e, name)
	}
	if f.Kind != "" && f.Name != "" && strings.Contains(f.Kind, "Function") {
		e := planError("Invalid function '%s'", f.Name)
		if strings.Contains(f.Kind, "Table") {
			e = planError("table function '%s' not found", f.Name)
		}
		return st.locateName(e, f.Name)
	}
	if f.Kind == "Table" && f.Name != "" {
		return st.locateName(planError("table 'datafusion.public.%s' not found", f.Name), f.Name)
	}
	return &Error{Code: Invalid, Message: prefixPlan + message}
}

// missingName returns the column that a message is about, "" when it is about something else.
func missingName(f EngineFault, message string) string {
	if f.Subtype == "COLUMN_NOT_FOUND" && f.Name != "" {
		return f.Name
	}
	if m := missingColumn().FindStringSubmatch(message); m != nil {
		return strings.Join(m[1:], "")
	}
	return ""
}

// candidates returns the names that the engine suggests.
func candidates(f EngineFault, message string) []string {
	if len(f.Candidates) > 0 {
		return f.Candidates[:min(5, len(f.Candidates))]
	}
	_, list, ok := strings.Cut(message, "Candidate bindings: ")
	if !ok {
		return nil
	}
	var names []string
	for part := range strings.SplitSeq(list, ",") {
		if name := strings.Trim(strings.TrimSpace(part), `"`); name != "" && len(names) < 5 {
			names = append(names, name)
		}
	}
	return names
}

// locateName sets the position of the first token that is the name.
func (st *Statement) locateName(e *Error, name string) *Error {
	if st == nil {
		return e
	}
	tokens, err := lex(st.text)
	if err != nil {
		return e
	}
	for _, t := range tokens {
		if t.kind == word && strings.EqualFold(t.out, name) || t.kind == quotedName && t.out == `"`+name+`"` {
			return e.at(st.text, t.start)
		}
	}
	return e
}
