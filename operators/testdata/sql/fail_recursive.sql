-- fails: 3:1+4: WITH RECURSIVE never ends over a stream
--  hint: write the steps as operators of their own
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n
