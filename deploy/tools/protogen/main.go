// Command protogen compiles one .proto file to Go without protoc: messages by protoc-gen-go, and beside them the methods
// of vtprotobuf that size and marshal without reflection. It writes NAME.pb.go and NAME_vtproto.pb.go next to the file,
// which may import no other.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/bufbuild/protocompile"
	"github.com/planetscale/vtprotobuf/generator"
	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	_ "github.com/planetscale/vtprotobuf/features/marshal"
	_ "github.com/planetscale/vtprotobuf/features/size"
)

// buildVersion is a line that vtprotobuf writes: the version of this program, which is none, or the commit it was built from.
var buildVersion = regexp.MustCompile(`(?m)^// protoc-gen-go-vtproto version: .*\n`)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: protogen FILE.proto")
		os.Exit(2)
	}
	if err := run(context.Background(), filepath.Dir(os.Args[1]), filepath.Base(os.Args[1])); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

// run works in dir, so that the code names the file without the way to it.
func run(ctx context.Context, dir, name string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	file, err := compile(ctx, name)
	if err != nil {
		return err
	}
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{name},
		Parameter:      proto.String("paths=source_relative"),
		ProtoFile:      []*descriptorpb.FileDescriptorProto{file},
	})
	if err != nil {
		return err
	}
	for _, f := range plugin.Files {
		internal_gengo.GenerateFile(plugin, f)
	}
	methods, err := generator.NewGenerator(plugin, []string{"marshal", "size"}, &generator.Config{})
	if err != nil {
		return fmt.Errorf("load vtprotobuf: %w", err)
	}
	methods.Generate()
	return write(plugin.Response())
}

func compile(ctx context.Context, name string) (*descriptorpb.FileDescriptorProto, error) {
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{},
		SourceInfoMode: protocompile.SourceInfoStandard, // the file's comments become the code's
	}
	files, err := compiler.Compile(ctx, name)
	if err != nil {
		return nil, err
	}
	return protodesc.ToFileDescriptorProto(files[0]), nil
}

func write(response *pluginpb.CodeGeneratorResponse) error {
	if response.Error != nil {
		return errors.New(*response.Error)
	}
	for _, f := range response.File {
		content := buildVersion.ReplaceAllString(f.GetContent(), "")
		if err := os.WriteFile(f.GetName(), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
