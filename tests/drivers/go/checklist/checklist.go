// Package checklist is what the programs of both drivers share: the cells run one after the other, one line for each.
package checklist

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// limit is how long one cell may take.
const limit = 20 * time.Second

var names = []string{
	"connect", "types", "parameters", "prepared", "pipelining", "transactions", "savepoints", "copy", "cancel",
	"statement_timeout", "notices", "large_rows", "reconnect", "temporary_tables", "settings", "role", "listen",
	"advisory_locks",
}

// Cell is one check. What it notes with T.Note is printed before its line.
type Cell func(t *T)

// T is what a running cell fails through.
type T struct {
	Ctx      context.Context
	cleanups []func()
	note     string
}

type failure struct{ reason string }

type none struct{ why string }

// None is the cell of a feature that the driver does not have.
func None(why string) Cell {
	return func(*T) { panic(none{why}) }
}

// Fail ends the cell.
func (t *T) Fail(format string, args ...any) {
	panic(failure{fmt.Sprintf(format, args...)})
}

// OK ends the cell if there is an error.
func (t *T) OK(err error) {
	if err != nil {
		t.Fail("%v", err)
	}
}

// Equal ends the cell unless both values are the same.
func (t *T) Equal(got, want any) {
	if !reflect.DeepEqual(got, want) {
		t.Fail("%#v expected, not %#v", want, got)
	}
}

// SQLState ends the cell unless the error is the server's, with this SQLSTATE.
func (t *T) SQLState(err error, code string) {
	var coded interface{ SQLState() string }
	if !errors.As(err, &coded) || coded.SQLState() != code {
		t.Fail("%s expected, not %v", code, err)
	}
}

var lost = regexp.MustCompile(`57P01|SQLSTATE 08|EOF|reset by peer|broken pipe|bad connection|conn closed`)

// Lost ends the cell unless the error says that the connection is gone.
func (t *T) Lost(err error) {
	if err == nil || !lost.MatchString(err.Error()) {
		t.Fail("a lost connection expected, not %v", err)
	}
}

// Cleanup has a function called after the cell, the last one first.
func (t *T) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Note leaves something to read before the line of the cell.
func (t *T) Note(format string, args ...any) { t.note = fmt.Sprintf(format, args...) }

// Alternate runs a check on all sessions, again and again, in transactions of their own.
//
// In each round another session holds a transaction open meanwhile. So behind a pooler in transaction mode all
// sessions get other servers than in the round before. The check gets the number of its session and of the round.
func Alternate[S any](
	t *T, sessions []S, rounds int, begin, commit func(t *T, session S), check func(session S, number, round int),
) {
	for round := range rounds {
		holder := round % len(sessions)
		begin(t, sessions[holder])
		check(sessions[holder], holder, round)
		for number, other := range sessions {
			if number != holder {
				check(other, number, round)
			}
		}
		commit(t, sessions[holder])
	}
}

// attempt runs a cell and returns its line.
func attempt(t *T, name string, cell Cell) (line string) {
	defer func() {
		switch reason := recover().(type) {
		case nil:
			line = "ok " + name
			if t.note != "" {
				line = fmt.Sprintf("# %s: %s\n%s", name, t.note, line)
			}
		case none:
			line = fmt.Sprintf("none %s: %s", name, reason.why)
		case failure:
			line = fmt.Sprintf("fail %s: %s", name, strings.Join(strings.Fields(reason.reason), " "))
		default:
			panic(reason)
		}
		for _, cleanup := range slices.Backward(t.cleanups) {
			cleanup()
		}
	}()
	cell(t)
	return
}

func run(name string, cell Cell) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ended := make(chan string, 1)
	go func() { ended <- attempt(&T{Ctx: ctx}, name, cell) }()
	select {
	case line := <-ended:
		return line
	case <-time.After(limit + time.Second):
		return fmt.Sprintf("fail %s: nothing within %s", name, limit)
	}
}

// chosen are the cells named on the command line, or, with "-", on standard input line by line, or all.
func chosen() iter.Seq[string] {
	switch {
	case len(os.Args) == 1:
		return slices.Values(names)
	case os.Args[1] != "-":
		return slices.Values(os.Args[1:])
	}
	return func(yield func(string) bool) {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() && yield(lines.Text()) {
		}
	}
}

// Run runs the chosen cells and ends the program.
func Run(cells map[string]Cell) {
	status := 0
	for name := range chosen() {
		line := run(name, cells[name])
		fmt.Println(line)
		if strings.HasPrefix(line, "fail") {
			status = 1
		}
	}
	os.Exit(status)
}
