-- fails: 3:15+15: the table function `generate_series` is not supported
--  hint: name a source, an operator or a static table
SELECT * FROM generate_series(1, 10)
