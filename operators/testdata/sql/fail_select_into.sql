-- fails: 3:15+4: SELECT INTO is not supported
--  hint: an operator is a SELECT with FROM, JOIN and WHERE
SELECT flight INTO x FROM flights
