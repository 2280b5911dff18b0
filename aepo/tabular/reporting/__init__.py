"""What a sweep leaves behind: summaries, findings, figures, the report, the files."""
