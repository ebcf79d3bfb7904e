"""SWE-bench Multilingual: an agent's patches, run in their containers and graded from the logs."""
