-- fails: 3:1+6: the query reads no stream, so nothing would make it run
--  hint: name a source or an operator in FROM; static tables are joined to one
SELECT 1 AS one
