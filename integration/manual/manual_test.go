// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const text = "# Title\n\nProse. <!-- run by TestX -->\n\n    one\n      two\n\nMore\n    prose.\n" +
		"<!-- not run: no network -->\n\n```sh\na\n\n    b\n```\n\n```json\n{}\n```\n<!-- run by TestY -->\n    c\n"
	want := []Block{
		{Text: "one\n  two\n", Line: 5, Test: "TestX"},
		{Language: "sh", Text: "a\n\n    b\n", Line: 12, Reason: "no network"},
		{Language: "json", Text: "{}\n", Line: 18},
		{Text: "c\n", Line: 22, Test: "TestY"},
	}
	if got := Parse(text); !slices.Equal(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}
