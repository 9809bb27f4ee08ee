// Command cni-driver calls CNI plugins as container runtimes do: with libcni.
//
//	cni-driver -conf LIST -path DIRS -cache DIR [-netns PATH -id ID -ifname NAME -args K=V;... -capabilities JSON] add|check|del|status|gc|validate
//
// It prints the result of ADD as JSON. A failure is the plugin's error as JSON, and exit code 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

func main() {
	conf := flag.String("conf", "", "file of the network configuration list")
	path := flag.String("path", "", "folders of plugins, separated by colons")
	cache := flag.String("cache", "", "folder in which libcni keeps results")
	netns := flag.String("netns", "", "the container's network namespace")
	id := flag.String("id", "", "the container's id")
	ifname := flag.String("ifname", "eth0", "the interface in the container")
	args := flag.String("args", "", "CNI_ARGS")
	capabilities := flag.String("capabilities", "{}", "capability arguments as JSON")
	keep := flag.String("keep", "", "gc: ids of the containers that still are, separated by commas")
	flag.Parse()

	result, err := run(*conf, *path, *cache, *capabilities, *keep, &libcni.RuntimeConf{
		ContainerID: *id,
		NetNS:       *netns,
		IfName:      *ifname,
		Args:        pairs(*args),
	}, flag.Arg(0))
	if err != nil {
		var failure *types.Error
		if !errors.As(err, &failure) {
			failure = &types.Error{Code: 999, Msg: err.Error()}
		}
		_ = json.NewEncoder(os.Stdout).Encode(failure)
		os.Exit(1)
	}
	if result != nil {
		_ = json.NewEncoder(os.Stdout).Encode(result)
	}
}

func run(conf, path, cache, capabilities, keep string, pod *libcni.RuntimeConf, command string) (types.Result, error) {
	list, err := libcni.ConfListFromFile(conf)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(capabilities), &pod.CapabilityArgs); err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	cni := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(path), cache, nil)
	ctx := context.Background()
	switch command {
	case "add":
		return cni.AddNetworkList(ctx, list, pod)
	case "check":
		return nil, cni.CheckNetworkList(ctx, list, pod)
	case "del":
		return nil, cni.DelNetworkList(ctx, list, pod)
	case "status":
		return nil, cni.GetStatusNetworkList(ctx, list)
	case "gc":
		var valid []types.GCAttachment
		for _, id := range strings.Split(keep, ",") {
			valid = append(valid, types.GCAttachment{ContainerID: id, IfName: pod.IfName})
		}
		return nil, cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
	case "validate":
		_, err := cni.ValidateNetworkList(ctx, list)
		return nil, err
	}
	return nil, fmt.Errorf("%q is not a command", command)
}

func pairs(text string) [][2]string {
	var all [][2]string
	for _, pair := range strings.Split(text, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			all = append(all, [2]string{key, value})
		}
	}
	return all
}
