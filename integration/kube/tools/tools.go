//go:build tools

// Package tools names what is built from other modules, so that go.sum knows it.
package tools

import _ "k8s.io/kubernetes/test/images/agnhost"
