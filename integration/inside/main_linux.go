// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// commands are the subcommands by name; each returns what is printed.
var commands = map[string]func(args []string) (any, error){
	"report":  report,
	"unlock":  unlock,
	"connect": connect,
	"measure": measure,
	"open":    open,
	"hang":    hang,
	"session": session,
	"sysinfo": sysinfo,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "inside: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: inside report|unlock|connect|measure|open|hang|session|sysinfo ARGUMENT")
	}
	answer, err := commands[args[0]](args[1:])
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}
