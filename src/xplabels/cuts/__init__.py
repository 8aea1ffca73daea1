"""Named cuts on tables of surveys: which rows become stars of a training or prediction table."""
