package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// parse reads a file's settings. Every error of the file is told, each with its line.
func parse(path string, text []byte, flags []*kong.Flag) (map[*kong.Flag]any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err) // it names the line
	}
	values := map[*kong.Flag]any{}
	if len(document.Content) == 0 { // nothing but comments
		return values, nil
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: expected lines of the form \"setting: value\"", path, top.Line)
	}
	var wrong []error
	for i := 0; i < len(top.Content); i += 2 {
		key, node := top.Content[i], top.Content[i+1]
		flag, value, err := setting(key.Value, node, flags)
		if _, twice := values[flag]; twice && err == nil {
			err = errors.New("it is there twice")
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: %s: %w", path, key.Line, key.Value, err))
			continue
		}
		values[flag] = value
	}
	return values, errors.Join(wrong...)
}

// setting finds what a key stands for, and checks its value as it would be on the command line.
func setting(key string, node *yaml.Node, flags []*kong.Flag) (*kong.Flag, any, error) {
	at := slices.IndexFunc(flags, func(f *kong.Flag) bool { return f.Name == key && key != fileFlag })
	if at < 0 {
		return nil, nil, errors.New("there is no such setting")
	}
	flag := flags[at]
	value, err := valueOf(node, flag.Target.Kind() == reflect.Slice)
	if err != nil {
		return nil, nil, err
	}
	err = flag.Parse(kong.Scan().PushTyped(value, kong.FlagValueToken), reflect.New(flag.Target.Type()).Elem())
	if err == nil && flag.Enum != "" && !flag.EnumMap()[value] {
		err = fmt.Errorf("it must be one of %s, and is %q", strings.Join(flag.EnumSlice(), ", "), value)
	}
	if err != nil {
		return nil, nil, errors.New(strings.TrimPrefix(err.Error(), flag.ShortSummary()+": "))
	}
	return flag, value, nil
}

// valueOf is a value as the command line would have it: text, or for what may be given several times, texts between commas.
func valueOf(node *yaml.Node, several bool) (string, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return "", errors.New("it has no value")
	case node.Kind == yaml.ScalarNode && several:
		return kong.JoinEscaped([]string{node.Value}, ','), nil
	case node.Kind == yaml.ScalarNode:
		return node.Value, nil
	case node.Kind == yaml.SequenceNode && several && len(node.Content) == 0:
		return "", errors.New("it has no value")
	case node.Kind == yaml.SequenceNode && several:
		var values []string
		for _, element := range node.Content {
			if element.Kind != yaml.ScalarNode {
				return "", fmt.Errorf("expected a list of plain values; line %d is not one", element.Line)
			}
			values = append(values, element.Value)
		}
		return kong.JoinEscaped(values, ','), nil
	case several:
		return "", errors.New("expected a value, or a list of values")
	default:
		return "", errors.New("expected a single value")
	}
}
