-- fails: 3:28+11: TABLESAMPLE is random, so rows processed again after a restart would be others
--  hint: choose rows by a column, such as `WHERE flight % 100 = 0`
SELECT flight FROM flights TABLESAMPLE BERNOULLI (10)
