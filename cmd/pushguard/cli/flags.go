package cli

import "github.com/pushguard/pushguard/cmd/pushguard/config"

// GuardFlags are shared by serve and demo; what is given here wins over the
// file.
type GuardFlags struct {
	Listen   string `help:"Address of the data port, host:port; port 0 takes a free one." placeholder:"ADDR"`
	Admin    string `help:"Address of the admin port, host:port; port 0 takes a free one." placeholder:"ADDR"`
	AddrFile string `help:"Write the chosen addresses to this file as JSON, once both ports are open." placeholder:"FILE"`
	LogFlags
}

// LogFlags are shared by the commands that run for long.
type LogFlags struct {
	LogFormat string `help:"Form of log lines: text or json." enum:"text,json," default:"" placeholder:"text|json"`
	LogLevel  string `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error," default:"" placeholder:"LEVEL"`
}

// Apply lets flags win over the file.
func (f *GuardFlags) Apply(cfg *config.Config) {
	if f.Listen != "" {
		cfg.Listen = f.Listen
	}
	if f.Admin != "" {
		cfg.Admin.Listen = f.Admin
	}
	if f.LogFormat != "" {
		cfg.Log.Format = config.LogFormat(f.LogFormat)
	}
	if f.LogLevel != "" {
		cfg.Log.Level = config.LogLevel(f.LogLevel)
	}
}
