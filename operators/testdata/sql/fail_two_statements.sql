-- fails: 4:1+6: an operator is one query, and here begins a second statement
--  hint: make it an operator of its own
SELECT flight FROM flights;
SELECT carrier FROM flights;
