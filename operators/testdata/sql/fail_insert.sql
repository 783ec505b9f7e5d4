-- fails: 3:1+6: only a SELECT query can be an operator
--  hint: write `SELECT … FROM <input>`; sources and sinks are declared in the pipeline
INSERT INTO flights SELECT * FROM flights
