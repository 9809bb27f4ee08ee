// Speaks to the container runtime as kubelet does, for what happens while kubelet can't:
//
//	cri run CONFIG.json     makes the sandbox that the file describes; prints its id
//	cri remove ID           stops and removes it
//	cri list                sandboxes that are ready, as JSON
//	cri inspect ID          the runtime's words on a sandbox, with the path of its network namespace
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	client "k8s.io/cri-client/pkg"
)

const socket = "unix:///run/containerd/containerd.sock"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	runtime, err := client.NewRemoteRuntimeService(socket, time.Minute, nil, nil)
	if err != nil {
		return err
	}
	background := context.Background()
	switch {
	case len(arguments) == 2 && arguments[0] == "run":
		text, err := os.ReadFile(arguments[1])
		if err != nil {
			return err
		}
		var config cri.PodSandboxConfig
		if err := json.Unmarshal(text, &config); err != nil {
			return err
		}
		id, err := runtime.RunPodSandbox(background, &config, "")
		if err != nil {
			return err
		}
		fmt.Println(id)
		return nil
	case len(arguments) == 2 && arguments[0] == "remove":
		if err := runtime.StopPodSandbox(background, arguments[1]); err != nil {
			return err
		}
		return runtime.RemovePodSandbox(background, arguments[1])
	case len(arguments) == 2 && arguments[0] == "inspect":
		status, err := runtime.PodSandboxStatus(background, arguments[1], true)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(status)
	case len(arguments) == 1 && arguments[0] == "list":
		ready := cri.PodSandboxState_SANDBOX_READY
		filter := &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: ready}}
		sandboxes, err := runtime.ListPodSandbox(background, filter)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(sandboxes)
	}
	return fmt.Errorf("usage: cri run CONFIG.json | remove ID | inspect ID | list")
}
