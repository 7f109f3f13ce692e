"""Log drivers that send to a receiver: syslog, journald, fluentd, gelf, splunk, awslogs, gcplogs."""
