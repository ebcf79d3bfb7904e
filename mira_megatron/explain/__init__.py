"""Why one record was kept or dropped, told from the files of a run."""
