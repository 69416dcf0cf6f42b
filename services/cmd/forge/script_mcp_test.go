package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/rogpeppe/go-internal/testscript"
)

// modelCommand runs the command, a server of MCP, and calls a tool of it with arguments in JSON; "tools" in place of a tool
// lists what there is. It prints the answer on stdout, or an error of the tool on stderr.
func modelCommand(ts *testscript.TestScript, args []string) {
	ctx := context.Background()
	command := exec.Command(args[2], args[3:]...)
	for _, name := range []string{"PATH", "HOME", "XDG_CONFIG_HOME", "FORGE_DATA_DIR", "FORGE_GRPC_ADDRESS", "GORACE"} {
		command.Env = append(command.Env, name+"="+ts.Getenv(name))
	}
	command.Dir = ts.MkAbs(".")
	var complaint strings.Builder
	command.Stderr = &complaint
	client := mcp.NewClient(&mcp.Implementation{Name: "script", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.CommandTransport{Command: command}, nil)
	if err != nil {
		ts.Fatalf("%v\n%s", err, complaint.String())
	}
	defer session.Close()
	if args[0] == "tools" {
		tools, err := session.ListTools(ctx, nil)
		ts.Check(err)
		for _, tool := range tools.Tools {
			_, err := fmt.Fprintln(ts.Stdout(), tool.Name)
			ts.Check(err)
		}
		return
	}
	answer, err := session.CallTool(ctx, &mcp.CallToolParams{Name: args[0], Arguments: json.RawMessage(args[1])})
	ts.Check(err)
	out := ts.Stdout()
	if answer.IsError {
		out = ts.Stderr()
	}
	_, err = fmt.Fprintln(out, textOfAnswer(answer))
	ts.Check(err)
}

func textOfAnswer(answer *mcp.CallToolResult) string {
	var all strings.Builder
	for _, one := range answer.Content {
		if text, ok := one.(*mcp.TextContent); ok {
			all.WriteString(text.Text)
		}
	}
	return all.String()
}
