from .command import main

if __name__ == "__main__":  # workers import this module as well
    main()
