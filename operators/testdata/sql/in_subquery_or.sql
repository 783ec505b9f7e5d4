SELECT flight FROM flights WHERE delay > 100 OR carrier IN (SELECT carrier FROM planes WHERE engines = 2)
