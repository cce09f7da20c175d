// Renders conversations as Ollama does: Go's text/template, with the values that template/template.go of Ollama (its
// source of August 2026) gives to a template. It joins all system messages, and neighbouring messages of one role. The
// tags of thoughts are the texts around {{ .Thinking }}, as in thinking/template.go.
//
// In: a JSON object on each line, {"template": TEXT, "messages": [{"role", "content", "thinking"}]}.
// Out: {"text", "opening", "closing", "error"} on each line.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

type Message struct {
	Role, Content, Thinking string
}

type Case struct {
	Template string
	Messages []*Message
}

type Result struct {
	Text    string `json:"text"`
	Opening string `json:"opening"`
	Closing string `json:"closing"`
	Error   string `json:"error"`
}

func collate(messages []*Message) (string, []*Message) {
	var system []string
	var joined []*Message
	for _, one := range messages {
		if one.Role == "system" {
			system = append(system, one.Content)
		}
		if last := len(joined) - 1; last >= 0 && joined[last].Role == one.Role {
			joined[last].Content += "\n\n" + one.Content
		} else {
			joined = append(joined, one)
		}
	}
	return strings.Join(system, "\n\n"), joined
}

// tags looks at each {{ .Thinking }} within a list, and takes the first and the last text of the list.
func tags(node parse.Node, list *parse.ListNode, result *Result) {
	switch node := node.(type) {
	case *parse.ListNode:
		for _, one := range node.Nodes {
			tags(one, node, result)
		}
	case *parse.IfNode:
		branch(&node.BranchNode, list, result)
	case *parse.RangeNode:
		branch(&node.BranchNode, list, result)
	case *parse.ActionNode:
		tags(node.Pipe, list, result)
	case *parse.PipeNode:
		for _, command := range node.Cmds {
			for _, one := range command.Args {
				tags(one, list, result)
			}
		}
	case *parse.FieldNode:
		if node.Ident[0] == "Thinking" {
			if text, ok := list.Nodes[0].(*parse.TextNode); ok {
				result.Opening = strings.TrimSpace(text.String())
			}
			if text, ok := list.Nodes[len(list.Nodes)-1].(*parse.TextNode); ok {
				result.Closing = strings.TrimSpace(text.String())
			}
		}
	}
}

func branch(node *parse.BranchNode, list *parse.ListNode, result *Result) {
	tags(node.Pipe, list, result)
	tags(node.List, list, result)
	if node.ElseList != nil {
		tags(node.ElseList, list, result)
	}
}

func render(one Case) Result {
	parsed, err := template.New("").Option("missingkey=zero").Parse(one.Template)
	if err != nil {
		return Result{Error: err.Error()}
	}
	var result Result
	tags(parsed.Tree.Root, nil, &result)
	system, messages := collate(one.Messages)
	var text strings.Builder
	values := map[string]any{
		"System": system, "Messages": messages, "Response": "", "Think": true, "ThinkLevel": "", "IsThinkSet": true,
	}
	if err := parsed.Execute(&text, values); err != nil {
		return Result{Error: err.Error()}
	}
	result.Text = text.String()
	return result
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for lines.Scan() {
		var one Case
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			panic(err)
		}
		if err := out.Encode(render(one)); err != nil {
			panic(err)
		}
	}
}
