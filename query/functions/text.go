package functions

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

func textScalars() []Scalar {
	return []Scalar{
		{"mm_regexp_match", []Type{Text, Text, Text}, TextList, regexpMatch},
		{"mm_regexp_instr", []Type{Text, Text, Text}, Int64, regexpInstr},
	}
}

// compiled keeps the last regular expression: it usually is the same in all rows.
type compiled struct {
	source string
	re     *regexp.Regexp
}

func (c *compiled) get(pattern, flags string) (*regexp.Regexp, error) {
	source := pattern
	if flags != "" {
		source = "(?" + flags + ")" + pattern
	}
	if c.re == nil || c.source != source {
		re, err := regexp.Compile(source)
		if err != nil {
			return nil, fmt.Errorf("regular expression '%s': %w", pattern, err)
		}
		c.source, c.re = strings.Clone(source), re
	}
	return c.re, nil
}

// regexpMatch gives the groups of the first match, or the whole match of an expression that
// has no groups; NULL without a match.
func regexpMatch() Row {
	var c compiled
	return func(in *Args, out *Out) error {
		re, err := c.get(in.Text[1], in.Text[2])
		if err != nil {
			return err
		}
		groups := re.FindStringSubmatch(in.Text[0])
		if len(groups) > 1 {
			groups = groups[1:]
		}
		out.List, out.Null = groups, groups == nil
		return nil
	}
}

// regexpInstr gives the position of the first match in characters from 1, 0 without a match.
func regexpInstr() Row {
	var c compiled
	return func(in *Args, out *Out) error {
		re, err := c.get(in.Text[1], in.Text[2])
		if err != nil {
			return err
		}
		if at := re.FindStringIndex(in.Text[0]); at != nil {
			out.Int = int64(utf8.RuneCountInString(in.Text[0][:at[0]])) + 1
		}
		return nil
	}
}
