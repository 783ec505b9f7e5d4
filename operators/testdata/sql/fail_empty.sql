-- fails: 1:1+1: the query is empty
--  hint: write `SELECT … FROM <input>`
  
